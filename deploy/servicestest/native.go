package servicestest

import (
	"errors"
	"testing"

	"github.com/amends-dev/amends/deploy/services"
)

// Native ends the test unless servers of its own can be started here, for one
// whose program starts them itself: by the same rules as StartMySQL, StartRedis,
// StartKafka, StartRabbitMQ and StartNATS do.
func Native(t testing.TB, names ...services.Service) {
	t.Helper()
	for _, name := range names {
		err := services.Check(t.Context(), name)
		var none *services.MissingError
		if errors.As(err, &none) {
			missing(t, name, err.Error())
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}
