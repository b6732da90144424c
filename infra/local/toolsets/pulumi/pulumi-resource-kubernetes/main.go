// pulumi-resource-kubernetes is the Kubernetes provider at its tag v4.25.0. Its own main embeds two files that the module
// does not hold; they are made from schema.json and terraform-mapping.json, which it does hold and which are copied here
// before the build.
package main

import (
	_ "embed"

	"github.com/pulumi/pulumi-kubernetes/provider/v4/pkg/provider"
)

//go:embed schema.json
var schema []byte

//go:embed terraform-mapping.json
var terraformMapping []byte

func main() {
	provider.Serve("kubernetes", "v4.25.0", schema, terraformMapping)
}
