"""Free pictures with noise, and the same without: the web app's examples."""
