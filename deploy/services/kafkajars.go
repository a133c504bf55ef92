package services

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
)

// KafkaVersion is the version of Apache Kafka that tests run on. 3.9.1, 4.1
// and 4.4 were seen to work with kafka-go v0.4.51.
const KafkaVersion = "4.1.1"

// kafkaPom is all that Maven needs to know. Kafka brings no logging to its
// users; without the second dependency a broker that dies says nothing.
const kafkaPom = `<project xmlns="http://maven.apache.org/POM/4.0.0">
  <modelVersion>4.0.0</modelVersion>
  <groupId>dev.amends</groupId>
  <artifactId>kafka-for-tests</artifactId>
  <version>1</version>
  <packaging>pom</packaging>
  <dependencies>
    <dependency>
      <groupId>org.apache.kafka</groupId>
      <artifactId>kafka_2.13</artifactId>
      <version>` + KafkaVersion + `</version>
    </dependency>
    <dependency>
      <groupId>org.apache.logging.log4j</groupId>
      <artifactId>log4j-slf4j-impl</artifactId>
      <version>2.24.3</version>
    </dependency>
  </dependencies>
</project>
`

// copyDependencies is the goal of Maven that copies jars, of one version of its plugin.
const copyDependencies = "org.apache.maven.plugins:maven-dependency-plugin:2.8:copy-dependencies"

// javaMin is what Kafka 4's broker needs.
const javaMin = 17

var javaPackages = []string{"default-jre-headless"}

// KafkaPackages are those of Debian that a first start of Kafka needs.
var KafkaPackages = []string{"default-jre-headless", "maven"}

// findJava answers with the path of a new enough Java.
func findJava(ctx context.Context) (string, error) {
	fix := fmt.Sprintf("install Java %d or newer, on Debian: apt-get install default-jre-headless", javaMin)
	java, err := find(javaPackages, fix, "java")
	if home := os.Getenv("JAVA_HOME"); home != "" {
		java, err = filepath.Join(home, "bin", "java"), nil
	}
	if err != nil {
		return "", err
	}
	out, err := exec.CommandContext(ctx, java, "-version").CombinedOutput()
	m := regexp.MustCompile(`version "(\d+)`).FindSubmatch(out)
	if err != nil || m == nil {
		return "", &MissingError{What: fmt.Sprintf("%s -version: %v: %s", java, err, out), Packages: javaPackages, Fix: fix}
	}
	if v, err := strconv.Atoi(string(m[1])); err != nil || v < javaMin {
		return "", &MissingError{What: fmt.Sprintf("%s is version %s", java, m[1]), Fix: fix}
	}
	return java, nil
}

func findMaven() (string, error) {
	return find([]string{"maven"}, "install Maven, on Debian: apt-get install --no-install-recommends maven", "mvn")
}

// kafkaCache is the folder of the jars of this version.
func kafkaCache() (string, error) {
	cache, err := os.UserCacheDir()
	if err != nil {
		return "", fmt.Errorf("services: no folder to keep Kafka's jars in: %w", err)
	}
	return filepath.Join(cache, "amends", "kafka-"+KafkaVersion), nil
}

// kafkaJars answers with that folder when it is filled.
func kafkaJars() (string, error) {
	dir, err := kafkaCache()
	if err != nil {
		return "", err
	}
	if _, err := os.Stat(dir); err != nil {
		return "", &MissingError{What: dir + " is not there", Fix: "run `make services`, which fetches Kafka's jars"}
	}
	return dir, nil
}

// InstallKafka fetches the jars of Apache Kafka from Maven Central and has Java
// keep its classes ready, once for all work trees, and calls say before it does.
// The error is a MissingError when Java or Maven are not there.
func InstallKafka(ctx context.Context, say func(format string, args ...any)) error {
	if _, err := findJava(ctx); err != nil {
		return err
	}
	if _, err := kafkaJars(); err != nil {
		mvn, err := findMaven()
		if err != nil {
			return err
		}
		dir, err := kafkaCache()
		if err != nil {
			return err
		}
		say("fetching Apache Kafka %s from Maven Central into %s (once)", KafkaVersion, dir)
		if err := fetchJars(ctx, mvn, dir); err != nil {
			return err
		}
	}
	if classArgs() == nil {
		say("having Java keep Kafka's classes ready, so that it starts faster (once)")
		if err := recordClasses(ctx); err != nil {
			say("it will start slower: %v", err) // and works
		}
	}
	return nil
}

// fetchJars fills dir, which is there only when it is complete.
func fetchJars(ctx context.Context, mvn, dir string) (err error) {
	if err := os.MkdirAll(filepath.Dir(dir), 0o755); err != nil {
		return fmt.Errorf("services: kafka: %w", err)
	}
	work, err := os.MkdirTemp(filepath.Dir(dir), "fetching-")
	if err != nil {
		return fmt.Errorf("services: kafka: %w", err)
	}
	defer func() {
		if e := os.RemoveAll(work); err == nil && e != nil {
			err = fmt.Errorf("services: kafka: %w", e)
		}
	}()
	pom, jars := filepath.Join(work, "pom.xml"), filepath.Join(work, "jars")
	if err := os.WriteFile(pom, []byte(kafkaPom), 0o600); err != nil {
		return fmt.Errorf("services: kafka: %w", err)
	}
	cmd := exec.CommandContext(ctx, mvn, "--batch-mode", "--quiet", "--file", pom,
		"-Dstyle.color=never", copyDependencies, "-DincludeScope=runtime", "-DoutputDirectory="+jars)
	if out, err := cmd.CombinedOutput(); err != nil {
		first, _, _ := strings.Cut(strings.TrimSpace(string(out)), "\n")
		return fmt.Errorf("services: fetching Kafka's jars: %w: check the way to Maven Central (a proxy goes into "+
			"~/.m2/settings.xml, a certificate into Java's trust store): %s", err, first)
	}
	if err := os.Rename(jars, dir); err != nil {
		if _, there := kafkaJars(); there == nil {
			return nil // another work tree was faster
		}
		return fmt.Errorf("services: kafka: %w", err)
	}
	return nil
}
