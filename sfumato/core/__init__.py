"""What every room needs: errors, checks, durable files, named random streams, tree paths."""
