"""`python -m denoise_se.app` is `denoise-se`."""

from denoise_se.app.cli import main

main()
