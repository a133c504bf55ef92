package sealedstore_test

import (
	"context"
	"log"

	"github.com/amends-dev/amends/coordinator/store/sealedstore"
	"github.com/amends-dev/amends/coordinator/store/sqlstore"
)

func ExampleNew() {
	ctx := context.Background()
	keys, err := sealedstore.OpenKeys("keys.json", nil) // and again when it changes
	if err != nil {
		log.Fatal(err)
	}
	inner, err := sqlstore.OpenSQLite(ctx, "/var/lib/amends", nil)
	if err != nil {
		log.Fatal(err)
	}
	st := sealedstore.New(inner, keys, nil) // give it to coordinator.New, and Run it beside
	defer st.Close()                        // closes inner, too
}
