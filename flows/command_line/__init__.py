"""The command line: dashpipe's commands by family, their shared options, the live screen."""
