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
| `Panel`, `Header`, `Status` | the frame, its menu and its one status sentence |
| `Models`, `ModelList`, `ModelTexts`, `ModelIcon` | the chooser of models |
| `Card`, `Packages` | what a model tells about itself; adding and removing |
| `Segment`, `Inputs`, `RegionRow` | the choices of a run and its one button |
| `Preflight`, `Remedies` | what stands in the way, and what one click does about it |
| `Run`, `State` | a run from click to result, and its states |
| `Results`, `Findings`, `ResultTexts`, `Views` | volumes, signs to look at, centring |
| `Confidence`, `Bars` | how sure the model was, kept with a segment; small pictures for cells |
| `Comparison`, `CompareInputs`, `ReferenceModel`, `Matching` | what is compared with what |
| `CompareRun`, `CompareEdits` | the work of a comparison, and whether its numbers still hold |
| `ComparisonTable`, `MetricsTable`, `TableFiles` | the numbers: in the scene, the panel, a file |
| `CompareView`, `CompareLayout`, `CompareDisplay`, `CompareLooks`, `CompareKeys` | its views |
| `WorstSlices`, `DisagreementPlot`, `DifferenceMap`, `DistanceMap` | where A and B differ |
| `Editing`, `EditorWidget`, `Corrections` | correct, take back, accept, keep to train with |
| `SupportText` | the report to copy |
"""
