"""Whether, when and how fast: send rules (pure), retry (pure) and pacing."""
