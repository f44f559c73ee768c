// Command controllerruntime books FlightTickets as an operator made by kubebuilder does: a manager, its cached
// client, one controller with a number of workers. There is no client-side throttling: so has GetConfig it by
// default since controller-runtime v0.21.
package main

import (
	"context"
	"errors"
	"flag"
	"log"

	"k8s.io/apimachinery/pkg/runtime"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller"
	"sigs.k8s.io/controller-runtime/pkg/log/zap"
	"sigs.k8s.io/controller-runtime/pkg/metrics/server"

	"pilothouse/bench/booking"
	"pilothouse/bench/ticket"
)

type reconciler struct {
	client.Client
	airline *booking.Client
}

// Reconcile books, or changes the booking, and reports it in the status.
func (r *reconciler) Reconcile(ctx context.Context, request ctrl.Request) (ctrl.Result, error) {
	seen := &ticket.FlightTicket{}
	if err := r.Get(ctx, request.NamespacedName, seen); err != nil {
		return ctrl.Result{}, client.IgnoreNotFound(err)
	}
	if seen.Settled() {
		return ctrl.Result{}, nil
	}
	held, err := r.book(ctx, seen)
	if err != nil {
		return ctrl.Result{}, err
	}
	changed := seen.DeepCopy()
	changed.Report(held)
	patch := client.MergeFromWithOptions(seen, client.MergeFromWithOptimisticLock{})
	return ctrl.Result{}, r.Status().Patch(ctx, changed, patch)
}

func (r *reconciler) book(ctx context.Context, seen *ticket.FlightTicket) (*booking.Booking, error) {
	if seen.Status.BookingID != "" {
		return r.airline.Change(ctx, seen.Status.BookingID, seen.Trip(), nil)
	}
	held, err := r.airline.Book(ctx, seen.Trip())
	if errors.Is(err, booking.ErrExists) {
		return r.airline.Find(ctx, string(seen.UID))
	}
	return held, err
}

func main() {
	// controller-runtime itself defines the flag -kubeconfig, and reads it in GetConfig.
	airline := flag.String("airline", "", "URL of the booking API")
	workers := flag.Int("workers", 16, "tickets at once")
	defaults := flag.Bool("defaults", false, "as it comes: one ticket at once, compressed answers, whole objects kept")
	flag.Parse()
	ctrl.SetLogger(zap.New())
	config, err := ctrl.GetConfig()
	if err != nil {
		log.Fatal(err)
	}
	scheme := runtime.NewScheme()
	if err := ticket.AddToScheme(scheme); err != nil {
		log.Fatal(err)
	}
	options := ctrl.Options{
		Scheme:                 scheme,
		Metrics:                server.Options{BindAddress: "127.0.0.1:0"},
		HealthProbeBindAddress: "127.0.0.1:0",
	}
	atOnce := 0
	if !*defaults {
		atOnce = *workers
		config.DisableCompression = true
		options.Cache.DefaultTransform = cache.TransformStripManagedFields()
	}
	manager, err := ctrl.NewManager(config, options)
	if err != nil {
		log.Fatal(err)
	}
	err = ctrl.NewControllerManagedBy(manager).
		For(&ticket.FlightTicket{}).
		WithOptions(controller.Options{MaxConcurrentReconciles: atOnce}).
		Complete(&reconciler{manager.GetClient(), booking.New(*airline, *workers)})
	if err != nil {
		log.Fatal(err)
	}
	if err := manager.Start(ctrl.SetupSignalHandler()); err != nil {
		log.Fatal(err)
	}
}
