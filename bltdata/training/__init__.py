"""Training, as the entropy model and the BLT share it.

`packing` fills rows with documents, and `loop` takes the steps of whatever implements the `TrainingTask` of `interface`.
`optimiser` has AdamW and Muon, `row_adam` what is for large tables, `schedule` the learning rate, `guards` and `memory`
what happens to a step that goes wrong. `states` keeps what a run goes on from, `checkpoint` the files of a model,
`metrics` those of its figures. `config` and `keeping` are the settings (which import no torch, so that help is instant).
"""
