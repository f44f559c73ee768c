// Package booking is the peers' client of the airline's booking API.
package booking

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"time"
)

// Trip is what is asked for under a unique reference.
type Trip struct {
	Reference string `json:"reference,omitempty"`
	From      string `json:"from"`
	To        string `json:"to"`
	Seats     int    `json:"seats"`
}

// Price is a decimal amount and its currency.
type Price struct {
	Amount   string `json:"amount"`
	Currency string `json:"currency"`
}

// Booking is what the airline holds.
type Booking struct {
	ID        string `json:"id"`
	Reference string `json:"reference"`
	From      string `json:"from"`
	To        string `json:"to"`
	Seats     int    `json:"seats"`
	Price     Price  `json:"price"`
	Version   int    `json:"version"`
}

// ErrExists says that the reference has a booking already.
var ErrExists = errors.New("the reference has a booking")

// ErrStale says that the booking has changed since it was read, or is gone.
var ErrStale = errors.New("the booking has changed")

// errTransient is an answer after which asking again may help.
var errTransient = errors.New("the airline failed")

const attempts = 3

// Client of one booking API.
type Client struct {
	url  string
	http *http.Client
}

// New returns a client that keeps as many connections as there are workers.
func New(url string, workers int) *Client {
	transport := http.DefaultTransport.(*http.Transport).Clone()
	transport.MaxIdleConnsPerHost = workers
	transport.MaxConnsPerHost = workers
	return &Client{url: url, http: &http.Client{Transport: transport, Timeout: 5 * time.Second}}
}

// Book books.
func (c *Client) Book(ctx context.Context, trip Trip) (*Booking, error) {
	return c.one(ctx, http.MethodPost, "/bookings", trip, nil)
}

// Change makes a booking what the trip asks for.
func (c *Client) Change(ctx context.Context, id string, trip Trip, header http.Header) (*Booking, error) {
	trip.Reference = ""
	return c.one(ctx, http.MethodPatch, "/bookings/"+id, trip, header)
}

// Find returns the booking with the reference, or nil.
func (c *Client) Find(ctx context.Context, reference string) (*Booking, error) {
	body, err := c.call(ctx, http.MethodGet, "/bookings?reference="+url.QueryEscape(reference), nil, nil)
	if err != nil {
		return nil, err
	}
	var page struct{ Items []Booking }
	if err := json.Unmarshal(body, &page); err != nil || len(page.Items) == 0 {
		return nil, err
	}
	return &page.Items[0], nil
}

// Cancel cancels by reference, for good.
func (c *Client) Cancel(ctx context.Context, reference string) error {
	_, err := c.call(ctx, http.MethodDelete, "/bookings?reference="+url.QueryEscape(reference), nil, nil)
	return err
}

func (c *Client) one(ctx context.Context, method, path string, trip Trip, header http.Header) (*Booking, error) {
	content, err := json.Marshal(trip)
	if err != nil {
		return nil, err
	}
	body, err := c.call(ctx, method, path, content, header)
	if err != nil {
		return nil, err
	}
	held := &Booking{}
	return held, json.Unmarshal(body, held)
}

// call asks up to three times, with growing pauses, as long as the airline fails.
func (c *Client) call(ctx context.Context, method, path string, content []byte, header http.Header) ([]byte, error) {
	var body []byte
	var err error
	for attempt := range attempts {
		if attempt > 0 {
			time.Sleep(200 * time.Millisecond << (attempt - 1))
		}
		if body, err = c.send(ctx, method, path, content, header); !errors.Is(err, errTransient) {
			break
		}
	}
	return body, err
}

func (c *Client) send(ctx context.Context, method, path string, content []byte, header http.Header) ([]byte, error) {
	request, err := http.NewRequestWithContext(ctx, method, c.url+path, bytes.NewReader(content))
	if err != nil {
		return nil, err
	}
	for name, values := range header {
		request.Header[name] = values
	}
	request.Header.Set("Content-Type", "application/json")
	request.Header.Set("X-API-Key", "bench")
	response, err := c.http.Do(request)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errTransient, err)
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	switch {
	case err != nil:
		return nil, fmt.Errorf("%w: %w", errTransient, err)
	case response.StatusCode < 300:
		return body, nil
	case response.StatusCode >= 500 || response.StatusCode == http.StatusTooManyRequests:
		return nil, fmt.Errorf("%w: %s %s", errTransient, response.Status, body)
	case response.StatusCode == http.StatusConflict:
		return nil, ErrExists
	case response.StatusCode == http.StatusPreconditionFailed, response.StatusCode == http.StatusNotFound:
		return nil, ErrStale
	default:
		return nil, fmt.Errorf("%s %s: %s %s", method, path, response.Status, body)
	}
}
