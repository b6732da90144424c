// Modules that are read and never built: the platform takes YAML from them.
module kubeflow-classroom/toolsets/manifests

go 1.21

require github.com/traefik/traefik/v3 v3.7.13
