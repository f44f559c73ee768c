// Command airline is the booking API of the benchmark: what examples/booking_api promises (unique references,
// versions, idempotency of a change), in memory and without latency, so that it takes little of the machine.
package main

import (
	"encoding/json"
	"flag"
	"fmt"
	"log"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync"

	"pilothouse/bench/booking"
)

type ledger struct {
	sync.Mutex
	byReference map[string]*booking.Booking
	byID        map[string]*booking.Booking
	closed      map[string]bool
	idempotent  map[string]*booking.Booking
	next        int
	created     int
	changed     int
	cancelled   int
	duplicates  int
	requests    map[string]int
}

func main() {
	address := flag.String("address", "127.0.0.1:0", "where to listen")
	flag.Parse()
	l := &ledger{}
	l.reset()
	mux := http.NewServeMux()
	mux.HandleFunc("POST /bookings", l.book)
	mux.HandleFunc("GET /bookings", l.find)
	mux.HandleFunc("DELETE /bookings", l.cancel)
	mux.HandleFunc("PATCH /bookings/{id}", l.change)
	mux.HandleFunc("GET /statistics", l.statistics)
	mux.HandleFunc("POST /reset", func(w http.ResponseWriter, _ *http.Request) { l.reset(); w.WriteHeader(204) })
	listener, err := net.Listen("tcp", *address)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Printf("http://%s\n", listener.Addr())
	log.Fatal(http.Serve(listener, mux))
}

func (l *ledger) reset() {
	l.Lock()
	defer l.Unlock()
	l.byReference, l.byID = map[string]*booking.Booking{}, map[string]*booking.Booking{}
	l.closed, l.idempotent = map[string]bool{}, map[string]*booking.Booking{}
	l.created, l.changed, l.cancelled, l.duplicates = 0, 0, 0, 0
	l.requests = map[string]int{}
}

func (l *ledger) book(w http.ResponseWriter, r *http.Request) {
	var trip booking.Trip
	if err := json.NewDecoder(r.Body).Decode(&trip); err != nil || trip.Reference == "" {
		l.refuse(w, r, 400, "invalid_request")
		return
	}
	l.Lock()
	if l.closed[trip.Reference] {
		l.Unlock()
		l.refuse(w, r, 409, "reference_closed")
		return
	}
	if l.byReference[trip.Reference] != nil {
		l.duplicates++
		l.Unlock()
		l.refuse(w, r, 409, "reference_exists")
		return
	}
	l.next++
	held := &booking.Booking{
		ID: fmt.Sprintf("B%07d", l.next), Reference: trip.Reference, From: trip.From, To: trip.To,
		Seats: trip.Seats, Price: price(trip.Seats), Version: 1,
	}
	l.byReference[trip.Reference], l.byID[held.ID] = held, held
	l.created++
	answer := *held
	l.Unlock()
	l.reply(w, r, 201, answer)
}

func (l *ledger) find(w http.ResponseWriter, r *http.Request) {
	reference := r.URL.Query().Get("reference")
	l.Lock()
	items := []booking.Booking{}
	if reference == "" {
		for _, held := range l.byReference {
			items = append(items, *held)
		}
	} else if held := l.byReference[reference]; held != nil {
		items = append(items, *held)
	}
	l.Unlock()
	l.reply(w, r, 200, map[string]any{"items": items})
}

func (l *ledger) change(w http.ResponseWriter, r *http.Request) {
	var trip booking.Trip
	if err := json.NewDecoder(r.Body).Decode(&trip); err != nil {
		l.refuse(w, r, 400, "invalid_request")
		return
	}
	key := r.Header.Get("Idempotency-Key")
	l.Lock()
	if answered := l.idempotent[key]; answered != nil {
		answer := *answered
		l.Unlock()
		l.reply(w, r, 200, answer)
		return
	}
	held := l.byID[r.PathValue("id")]
	if held == nil {
		l.Unlock()
		l.refuse(w, r, 404, "not_found")
		return
	}
	if match := strings.Trim(r.Header.Get("If-Match"), `"`); match != "" && match != strconv.Itoa(held.Version) {
		l.Unlock()
		l.refuse(w, r, 412, "precondition_failed")
		return
	}
	held.From, held.To, held.Seats, held.Price = trip.From, trip.To, trip.Seats, price(trip.Seats)
	held.Version++
	l.changed++
	answer := *held
	if key != "" {
		l.idempotent[key] = &answer
	}
	l.Unlock()
	l.reply(w, r, 200, answer)
}

func (l *ledger) cancel(w http.ResponseWriter, r *http.Request) {
	reference := r.URL.Query().Get("reference")
	l.Lock()
	held := l.byReference[reference]
	l.closed[reference] = true
	if held != nil {
		delete(l.byReference, reference)
		delete(l.byID, held.ID)
		l.cancelled++
	}
	l.Unlock()
	if held == nil {
		w.WriteHeader(204)
		return
	}
	l.reply(w, r, 200, held)
}

func (l *ledger) statistics(w http.ResponseWriter, _ *http.Request) {
	l.Lock()
	defer l.Unlock()
	json.NewEncoder(w).Encode(map[string]any{
		"bookings": len(l.byID), "created": l.created, "changed": l.changed, "cancelled": l.cancelled,
		"duplicates_refused": l.duplicates, "requests": l.requests,
	})
}

func (l *ledger) reply(w http.ResponseWriter, r *http.Request, status int, body any) {
	l.count(r, status)
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	json.NewEncoder(w).Encode(body)
}

func (l *ledger) refuse(w http.ResponseWriter, r *http.Request, status int, code string) {
	l.count(r, status)
	w.Header().Set("Content-Type", "application/problem+json")
	w.WriteHeader(status)
	fmt.Fprintf(w, `{"title":%q,"status":%d,"code":%q,"detail":%q}`, code, status, code, code)
}

func (l *ledger) count(r *http.Request, status int) {
	l.Lock()
	l.requests[fmt.Sprintf("%s %d", r.Method, status)]++
	l.Unlock()
}

func price(seats int) booking.Price {
	return booking.Price{Amount: fmt.Sprintf("%d.00", 542*seats), Currency: "USD"}
}
