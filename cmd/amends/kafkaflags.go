package main

import (
	"crypto/tls"
	"os"
	"slices"
	"strings"

	"github.com/segmentio/kafka-go/sasl"
	saslplain "github.com/segmentio/kafka-go/sasl/plain"
	"github.com/segmentio/kafka-go/sasl/scram"
	"github.com/spf13/cobra"

	"github.com/amends-dev/amends/coordinator/auth"
)

// kafkaPasswordEnv holds the password of --kafka-user when no file does.
const kafkaPasswordEnv = "AMENDS_KAFKA_PASSWORD" //nolint:gosec // a name, no password

// maxPassword is the longest password of a file, in bytes.
const maxPassword = 4096

// mechanisms are what --kafka-sasl can be.
var mechanisms = []string{"plain", "scram-sha-256", "scram-sha-512"}

// kafkaLogin is how to talk to Kafka's brokers: in plaintext and as nobody, unless flags say otherwise. One set serves
// all brokers of a command.
type kafkaLogin struct {
	tls           bool
	ca, cert, key string
	mechanism     string // empty: none
	user          string
	passwordFile  string
}

func (k *kafkaLogin) flags(cmd *cobra.Command) {
	f := cmd.Flags()
	f.BoolVar(&k.tls, "kafka-tls", false, "talk TLS to Kafka, trusting the system's authorities")
	f.StringVar(&k.ca, "kafka-ca", "", "talk TLS to Kafka, trusting the authorities in this PEM `file`")
	f.StringVar(&k.cert, "kafka-cert", "", "show Kafka the client certificate in this PEM `file`")
	f.StringVar(&k.key, "kafka-key", "", "its key, a PEM `file`")
	f.StringVar(&k.mechanism, "kafka-sasl", "", "log in to Kafka with this SASL `mechanism`: "+strings.Join(mechanisms, ", "))
	f.StringVar(&k.user, "kafka-user", "", "as this `user`, with the password in "+kafkaPasswordEnv)
	f.StringVar(&k.passwordFile, "kafka-password-file", "", "as --kafka-user, with the password in this `file`")
}

// check finds mistakes in the flags; brokers are all that they are for.
func (k *kafkaLogin) check(brokers []string) error {
	if (k.cert == "") != (k.key == "") {
		return usagef("--kafka-cert and --kafka-key belong together: give both")
	}
	switch {
	case k.given() && len(brokers) == 0:
		return usagef("the --kafka- flags say how to talk to brokers, and there are none: name them too")
	case k.mechanism == "" && k.user+k.passwordFile != "":
		return usagef("--kafka-user and --kafka-password-file are for --kafka-sasl: give that too")
	case k.mechanism == "":
		return nil
	case !slices.Contains(mechanisms, k.mechanism):
		return usagef("--kafka-sasl is %q: give %s", k.mechanism, strings.Join(mechanisms, ", "))
	case k.user == "":
		return usagef("--kafka-sasl needs a user: give --kafka-user too")
	}
	away := func(addr string) bool { return !local(addr) }
	if k.mechanism == "plain" && !k.encrypted() && slices.ContainsFunc(brokers, away) {
		return usagef("--kafka-sasl plain would send the password readable to a broker that is not on this machine: " +
			"give --kafka-tls or --kafka-ca, or another mechanism")
	}
	return nil
}

// given reports whether it is more than plaintext and nobody.
func (k *kafkaLogin) given() bool { return k.encrypted() || k.mechanism != "" }

func (k *kafkaLogin) encrypted() bool { return k.tls || k.ca != "" || k.cert != "" }

// open reads the files, and answers nil for what there is not. It never names the password.
func (k *kafkaLogin) open() (conf *tls.Config, login sasl.Mechanism, err error) {
	if k.encrypted() {
		if conf, err = auth.ClientTLS(k.ca, k.cert, k.key); err != nil {
			return nil, nil, &usageError{err}
		}
		conf.MinVersion = tls.VersionTLS12 // what brokers on Java 8 have
	}
	if k.mechanism == "" {
		return conf, nil, nil
	}
	password, err := k.password()
	if err != nil {
		return nil, nil, err
	}
	switch k.mechanism {
	case "plain":
		return conf, saslplain.Mechanism{Username: k.user, Password: password}, nil
	case "scram-sha-256":
		login, err = scram.Mechanism(scram.SHA256, k.user, password)
	default:
		login, err = scram.Mechanism(scram.SHA512, k.user, password)
	}
	if err != nil {
		return nil, nil, usagef("--kafka-sasl: the user or the password has characters that SCRAM does not take")
	}
	return conf, login, nil
}

func (k *kafkaLogin) password() (string, error) {
	if k.passwordFile == "" {
		if password := os.Getenv(kafkaPasswordEnv); password != "" {
			return password, nil
		}
		return "", usagef("--kafka-sasl needs a password: set %s, or give --kafka-password-file", kafkaPasswordEnv)
	}
	text, err := readFile(k.passwordFile, maxPassword)
	if err != nil {
		return "", usagef("--kafka-password-file: %w", err)
	}
	password := strings.TrimRight(string(text), "\r\n")
	if password == "" {
		return "", usagef("--kafka-password-file: %q is empty", k.passwordFile)
	}
	return password, nil
}
