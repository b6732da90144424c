// The two API modules as KFP's own go.mod pins them: their go.mod files and the package cachekey are used, the generated
// code beside them is older than the backend and is generated anew.
module kubeflow-classroom/toolsets/pipelines/api-as-pinned

go 1.24.2

require (
	github.com/kubeflow/pipelines/api v0.0.0-20250102152816-873e9dedd766
	github.com/kubeflow/pipelines/kubernetes_platform v0.0.0-20240725205754-d911c8b73b49
)
