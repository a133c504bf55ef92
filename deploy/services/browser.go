package services

// Browser returns the path of a Chromium, for tests of web pages. The error is a
// *MissingError.
func Browser() (string, error) {
	return find([]string{"chromium"}, "install Chromium",
		"chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "headless-shell")
}
