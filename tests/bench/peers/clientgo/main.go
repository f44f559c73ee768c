// Command clientgo books FlightTickets the way of sample-controller: typed objects, a shared informer, a rate
// limited queue, a number of workers. With -careful it does what the flights operator does: it stores a
// finalizer first, books under the ticket's UID, looks up what a lost reply may have booked, and cancels.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"log"
	"net/http"
	"os/signal"
	"slices"
	"sync"
	"syscall"
	"time"

	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/client-go/util/workqueue"

	"pilothouse/bench/booking"
	"pilothouse/bench/ticket"
)

const resource = "flighttickets"

type controller struct {
	client  *rest.RESTClient
	airline *booking.Client
	store   cache.Store
	queue   workqueue.TypedRateLimitingInterface[string]
	careful bool
	// Keep managedFields, too, which nobody here reads.
	whole bool
	// What each ticket's booking was when it was last seen, by UID: a change of it need not look it up, because
	// the airline refuses to change another version (If-Match).
	held sync.Map
}

func main() {
	kubeconfig := flag.String("kubeconfig", "", "a kubeconfig file")
	airline := flag.String("airline", "", "URL of the booking API")
	workers := flag.Int("workers", 16, "tickets at once")
	careful := flag.Bool("careful", false, "finalizer, look-up by UID, clean-up")
	defaults := flag.Bool("defaults", false, "as client-go comes: throttled, compressed answers, whole objects kept")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	client, err := typedClient(*kubeconfig, *defaults)
	if err != nil {
		log.Fatal(err)
	}
	c := &controller{
		client:  client,
		airline: booking.New(*airline, *workers),
		queue:   workqueue.NewTypedRateLimitingQueue(workqueue.DefaultTypedControllerRateLimiter[string]()),
		careful: *careful,
		whole:   *defaults,
	}
	c.run(ctx, *workers)
}

// typedClient returns a client of the kind. By default rest.Config makes it 5 requests a second and a burst of 10,
// and asks for compressed answers.
func typedClient(kubeconfig string, defaults bool) (*rest.RESTClient, error) {
	config, err := clientcmd.BuildConfigFromFlags("", kubeconfig)
	if err != nil {
		return nil, err
	}
	scheme := runtime.NewScheme()
	if err := ticket.AddToScheme(scheme); err != nil {
		return nil, err
	}
	config.GroupVersion = &ticket.GroupVersion
	config.APIPath = "/apis"
	config.NegotiatedSerializer = serializer.NewCodecFactory(scheme).WithoutConversion()
	if !defaults {
		config.QPS = -1
		config.DisableCompression = true
	}
	return rest.RESTClientFor(config)
}

func (c *controller) run(ctx context.Context, workers int) {
	defer c.queue.ShutDown()
	source := cache.NewListWatchFromClient(c.client, resource, metav1.NamespaceAll, fields.Everything())
	informer := cache.NewSharedIndexInformer(source, &ticket.FlightTicket{}, 0, cache.Indexers{})
	c.store = informer.GetStore()
	if !c.whole {
		if err := informer.SetTransform(withoutManagedFields); err != nil {
			log.Fatal(err)
		}
	}
	_, err := informer.AddEventHandler(cache.ResourceEventHandlerFuncs{
		AddFunc:    c.enqueue,
		UpdateFunc: func(_, changed any) { c.enqueue(changed) },
		DeleteFunc: c.enqueue,
	})
	if err != nil {
		log.Fatal(err)
	}
	go informer.RunWithContext(ctx)
	if !cache.WaitForCacheSync(ctx.Done(), informer.HasSynced) {
		return
	}
	for range workers {
		go wait.UntilWithContext(ctx, c.work, time.Second)
	}
	<-ctx.Done()
}

func withoutManagedFields(object any) (any, error) {
	if accessor, err := meta.Accessor(object); err == nil {
		accessor.SetManagedFields(nil)
	}
	return object, nil
}

func (c *controller) enqueue(object any) {
	if key, err := cache.DeletionHandlingMetaNamespaceKeyFunc(object); err == nil {
		c.queue.Add(key)
	}
}

func (c *controller) work(ctx context.Context) {
	for c.next(ctx) {
	}
}

func (c *controller) next(ctx context.Context) bool {
	key, shutdown := c.queue.Get()
	if shutdown {
		return false
	}
	defer c.queue.Done(key)
	if err := c.sync(ctx, key); err != nil {
		if !apierrors.IsConflict(err) {
			log.Printf("%s: %v", key, err)
		}
		c.queue.AddRateLimited(key)
		return true
	}
	c.queue.Forget(key)
	return true
}

func (c *controller) sync(ctx context.Context, key string) error {
	object, exists, err := c.store.GetByKey(key)
	if err != nil || !exists {
		return err
	}
	seen := object.(*ticket.FlightTicket).DeepCopy()
	if c.careful {
		if done, err := c.guard(ctx, seen); done || err != nil {
			return err
		}
	}
	if seen.Settled() {
		return nil
	}
	held, err := c.book(ctx, seen)
	if err != nil {
		return err
	}
	if c.careful {
		c.held.Store(seen.UID, held)
	}
	changed := seen.DeepCopy()
	changed.Report(held)
	if equality.Semantic.DeepEqual(seen.Status, changed.Status) {
		return nil
	}
	return c.patch(ctx, seen, map[string]any{"status": changed.Status}, "status")
}

// guard stores the finalizer before anything is booked, and cancels when the ticket goes.
func (c *controller) guard(ctx context.Context, seen *ticket.FlightTicket) (done bool, err error) {
	has := slices.Contains(seen.Finalizers, ticket.Finalizer)
	if seen.DeletionTimestamp != nil {
		if !has {
			return true, nil
		}
		if err := c.airline.Cancel(ctx, string(seen.UID)); err != nil {
			return true, err
		}
		c.held.Delete(seen.UID)
		left := slices.DeleteFunc(slices.Clone(seen.Finalizers), func(each string) bool { return each == ticket.Finalizer })
		return true, c.patch(ctx, seen, map[string]any{"metadata": map[string]any{"finalizers": left}})
	}
	if has {
		return false, nil
	}
	with := append(slices.Clone(seen.Finalizers), ticket.Finalizer)
	return false, c.patch(ctx, seen, map[string]any{"metadata": map[string]any{"finalizers": with}})
}

func (c *controller) book(ctx context.Context, seen *ticket.FlightTicket) (*booking.Booking, error) {
	if seen.Status.BookingID == "" {
		held, err := c.airline.Book(ctx, seen.Trip())
		if !errors.Is(err, booking.ErrExists) {
			return held, err
		}
	} else if !c.careful {
		return c.airline.Change(ctx, seen.Status.BookingID, seen.Trip(), nil)
	}
	if known, ok := c.held.Load(seen.UID); ok && seen.Status.BookingID == known.(*booking.Booking).ID {
		held, err := c.change(ctx, seen, known.(*booking.Booking))
		if !errors.Is(err, booking.ErrStale) {
			return held, err
		}
	}
	held, err := c.airline.Find(ctx, string(seen.UID))
	if err != nil {
		return nil, err
	}
	if held == nil {
		return c.airline.Book(ctx, seen.Trip())
	}
	return c.change(ctx, seen, held)
}

func (c *controller) change(ctx context.Context, seen *ticket.FlightTicket, held *booking.Booking) (*booking.Booking, error) {
	if held.From == seen.Spec.From && held.To == seen.Spec.To && held.Seats == seen.Spec.Number {
		return held, nil
	}
	return c.airline.Change(ctx, held.ID, seen.Trip(), http.Header{
		"Idempotency-Key": {fmt.Sprintf("%s-%d-%d", seen.UID, seen.Generation, held.Version)},
		"If-Match":        {fmt.Sprintf(`"%d"`, held.Version)},
	})
}

// patch writes fields of the ticket as it was seen, and gives `seen` the resourceVersion after the write.
func (c *controller) patch(ctx context.Context, seen *ticket.FlightTicket, body map[string]any, subresource ...string) error {
	metadata, _ := body["metadata"].(map[string]any)
	if metadata == nil {
		metadata = map[string]any{}
		body["metadata"] = metadata
	}
	metadata["resourceVersion"] = seen.ResourceVersion
	content, err := json.Marshal(body)
	if err != nil {
		return err
	}
	result := &ticket.FlightTicket{}
	err = c.client.Patch(types.MergePatchType).Namespace(seen.Namespace).Resource(resource).Name(seen.Name).
		SubResource(subresource...).Body(content).Do(ctx).Into(result)
	if err == nil {
		seen.ResourceVersion, seen.Finalizers = result.ResourceVersion, result.Finalizers
	}
	return err
}
