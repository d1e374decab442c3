"""From a configuration to artifacts: what `lowland run` builds."""
