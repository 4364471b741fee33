"""The panel of the DistillSeg module and what it rests on, one idea per file.

| file | what |
|---|---|
| `Nodes` | volume nodes into images |
| `Regions` | boxes of the scene into regions, and the model's own box |
| `Segments` | segmentations into nodes and back |
| `Outputs` | which node a result goes to, the model's raw output, reset |
| `Worker` | a function in a thread |
| `Jobs` | one worker beside the event loop, told on the main thread |
| `Install`, `PipOutput` | the inference engine: is it there, ask, install, say why not |
| `Calls` | what is asked of a model, and the worker's part of it |
| `Logic` | segment and compare, for the panel and the Python console |
| `Parameters` | all choices, saved with the scene |
"""
