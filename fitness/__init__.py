"""How good an architecture looks without training, and what it costs. numpy only."""
