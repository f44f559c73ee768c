// Package ticket holds the FlightTicket as Go sees it, what kubebuilder would scaffold and controller-gen
// would generate, and the work that every peer does to one: the same booking, the same status.
package ticket

import (
	"fmt"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"pilothouse/bench/booking"
)

// Finalizer holds a deleted ticket back until its booking is cancelled.
const Finalizer = "flights.com/booking"

// GroupVersion of the kind.
var GroupVersion = schema.GroupVersion{Group: "flights.com", Version: "v1"}

// AddToScheme registers the kind.
func AddToScheme(scheme *runtime.Scheme) error {
	scheme.AddKnownTypes(GroupVersion, &FlightTicket{}, &FlightTicketList{})
	metav1.AddToGroupVersion(scheme, GroupVersion)
	return nil
}

// Spec is the flight to book.
type Spec struct {
	From   string `json:"from"`
	To     string `json:"to"`
	Number int    `json:"number"`
}

// Status is what the airline holds.
type Status struct {
	Phase              string             `json:"phase,omitempty"`
	BookingID          string             `json:"bookingID,omitempty"`
	BookedSeats        int                `json:"bookedSeats,omitempty"`
	Price              string             `json:"price,omitempty"`
	ObservedGeneration int64              `json:"observedGeneration,omitempty"`
	Conditions         []metav1.Condition `json:"conditions,omitempty"`
}

// FlightTicket asks for seats on a flight.
type FlightTicket struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`

	Spec   Spec   `json:"spec,omitempty"`
	Status Status `json:"status,omitempty"`
}

// FlightTicketList is a list of them.
type FlightTicketList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`

	Items []FlightTicket `json:"items"`
}

// DeepCopy copies the ticket.
func (t *FlightTicket) DeepCopy() *FlightTicket {
	out := *t
	t.ObjectMeta.DeepCopyInto(&out.ObjectMeta)
	if t.Status.Conditions != nil {
		out.Status.Conditions = make([]metav1.Condition, len(t.Status.Conditions))
		for i := range t.Status.Conditions {
			t.Status.Conditions[i].DeepCopyInto(&out.Status.Conditions[i])
		}
	}
	return &out
}

// DeepCopyObject copies the ticket.
func (t *FlightTicket) DeepCopyObject() runtime.Object { return t.DeepCopy() }

// DeepCopyObject copies the list.
func (l *FlightTicketList) DeepCopyObject() runtime.Object {
	out := *l
	l.ListMeta.DeepCopyInto(&out.ListMeta)
	out.Items = make([]FlightTicket, len(l.Items))
	for i := range l.Items {
		out.Items[i] = *l.Items[i].DeepCopy()
	}
	return &out
}

// Settled tells whether the status says already that the airline holds what the spec asks for.
func (t *FlightTicket) Settled() bool {
	return t.Status.Phase == "Booked" && t.Status.BookingID != "" && t.Status.ObservedGeneration == t.Generation
}

// Trip is what the ticket asks for.
func (t *FlightTicket) Trip() booking.Trip {
	return booking.Trip{Reference: string(t.UID), From: t.Spec.From, To: t.Spec.To, Seats: t.Spec.Number}
}

// Report puts a booking into the status.
func (t *FlightTicket) Report(held *booking.Booking) {
	t.Status.Phase = "Booked"
	t.Status.BookingID = held.ID
	t.Status.BookedSeats = held.Seats
	t.Status.Price = held.Price.Amount + " " + held.Price.Currency
	t.Status.ObservedGeneration = t.Generation
	plural := "s"
	if held.Seats == 1 {
		plural = ""
	}
	meta.SetStatusCondition(&t.Status.Conditions, metav1.Condition{
		Type:               "Ready",
		Status:             metav1.ConditionTrue,
		Reason:             "Booked",
		Message:            fmt.Sprintf("Booking %s holds %d seat%s from %s to %s.", held.ID, held.Seats, plural, held.From, held.To),
		ObservedGeneration: t.Generation,
	})
}
