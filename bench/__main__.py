"""`python -m bench`: every benchmark, figures and plots under `bench/results`."""

from bench.denoising_step import main

if __name__ == "__main__":
    main()
