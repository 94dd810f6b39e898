"""Many runs at once: a plan of experiments and seeds, and the engines that execute it."""
