"""Task heads trained by simulated partners, and how well they do beside what is known without training."""
