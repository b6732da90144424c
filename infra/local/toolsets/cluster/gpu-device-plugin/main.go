// gpu-device-plugin registers a number of seats of one resource with the kubelet: nvidia.com/gpu on a machine that has no GPU.
// A container that asks for one gets nothing but the place; that is what a class rehearsal needs to test scheduling and quotas.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"

	"k8s.io/klog/v2"
	pluginapi "k8s.io/kubelet/pkg/apis/deviceplugin/v1beta1"
	plugin "k8s.io/kubernetes/pkg/kubelet/cm/devicemanager/plugin/v1beta1"
)

func main() {
	resource := flag.String("resource", "nvidia.com/gpu", "the extended resource's name")
	count := flag.Int("count", 1, "how many devices of it the node has")
	flag.Parse()

	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	if err := serve(ctx, *resource, *count); err != nil {
		fmt.Fprintf(os.Stderr, "gpu-device-plugin: %s is not registered: %v\n", *resource, err)
		os.Exit(1)
	}
}

// serve offers count devices of the resource until ctx ends. A kubelet that restarts is registered with anew by the stub's
// own watch on the kubelet's socket.
func serve(ctx context.Context, resource string, count int) error {
	devices := make([]*pluginapi.Device, count)
	for i := range devices {
		devices[i] = &pluginapi.Device{ID: fmt.Sprintf("seat-%d", i), Health: pluginapi.Healthy}
	}
	logger := klog.FromContext(ctx)
	socket := filepath.Join(pluginapi.DevicePluginPath, strings.ReplaceAll(resource, "/", "-")+".sock")
	stub := plugin.NewDevicePluginStub(logger, devices, socket, resource, false, false)
	stub.SetAllocFunc(allocate)
	if err := stub.Start(ctx); err != nil {
		return err
	}
	if err := stub.Register(ctx, pluginapi.KubeletSocket, resource, pluginapi.DevicePluginPath); err != nil {
		return err
	}
	go stub.Watch(ctx, pluginapi.KubeletSocket, resource, pluginapi.DevicePluginPath)
	<-ctx.Done()
	return stub.Stop(logger)
}

// allocate answers one empty response per container: the kubelet refuses an answer with fewer.
func allocate(r *pluginapi.AllocateRequest, _ map[string]*pluginapi.Device) (*pluginapi.AllocateResponse, error) {
	response := &pluginapi.AllocateResponse{}
	for range r.ContainerRequests {
		response.ContainerResponses = append(response.ContainerResponses, &pluginapi.ContainerAllocateResponse{})
	}
	return response, nil
}
