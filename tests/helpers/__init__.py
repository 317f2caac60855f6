"""What several tests need: commands, servers, studies that train nothing, small data sets."""
