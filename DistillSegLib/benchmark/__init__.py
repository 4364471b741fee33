"""Speed and memory, measured in processes of their own, beside other pipelines in the same run."""
