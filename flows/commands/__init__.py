"""The commands of `maskmill`, a file a theme. Each imports what it needs when it runs, so that --help is
quick."""
