// Package outboxdev runs a Kafka broker and a Redis server inside the calling process, on real loopback
// connections, so that development, demos and tests need no services.
//
// They are for development only. The broker is franz-go's kfake and the server is miniredis: both speak the real
// protocols to the real clients, but neither is hardened, replicated or tuned, and both say so in the log when they
// start. The broker keeps its log in a directory when it is given one; Redis keeps everything in memory.
package outboxdev
