package services

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
)

// kafkaClasses is the file in which Java keeps the classes of a broker that
// runs, to map them at the next start instead of reading them from the jars:
// that takes 60 % of the CPU then. Java ignores it when it is another's.
func kafkaClasses() (string, error) {
	dir, err := kafkaCache()
	return dir + ".jsa", err
}

// classArgs has Java use that file, when it is there.
func classArgs() []string {
	file, err := kafkaClasses()
	if err != nil {
		return nil // kafkaJars has reported it
	}
	if _, err := os.Stat(file); err != nil {
		return nil
	}
	return []string{"-XX:SharedArchiveFile=" + file, "-Xlog:disable", "-Xlog:all=error:stderr"}
}

// recordClasses makes that file, by a broker that starts and ends.
func recordClasses(ctx context.Context) (err error) {
	file, err := kafkaClasses()
	if err != nil {
		return err
	}
	p, err := NewKafka(ctx)
	if err != nil {
		return err
	}
	made := filepath.Join(p.Dir, "classes.jsa")
	p.Args = append([]string{"-XX:ArchiveClassesAtExit=" + made}, p.Args...)
	defer func() { err = errors.Join(err, p.Remove()) }()
	if err := errors.Join(p.Start(ctx), p.Stop()); err != nil {
		return err
	}
	// Beside the file first: the folder of the server may lie on another disk.
	data, err := os.ReadFile(made)
	if err == nil {
		err = os.WriteFile(fmt.Sprint(file, ".", os.Getpid()), data, 0o600)
	}
	if err == nil {
		err = os.Rename(fmt.Sprint(file, ".", os.Getpid()), file)
	}
	if err != nil {
		return fmt.Errorf("services: kafka: keep its classes: %w", err)
	}
	return nil
}
