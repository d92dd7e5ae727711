"""Training, as the entropy model and the BLT share it.

`packing` fills rows with documents, and `loop` takes the steps of whatever implements the `TrainingTask` of `interface`.
`optimiser` gives matrices to AdamW or `muon`, and large tables to `row_adam`; `schedule` has the learning rate,
`guards` and `micro_batches` what happens to a step that goes wrong. `states` keeps what a run goes on from, as
`state_files`; `checkpoint` has the files of a model, `metrics` those of its figures. `config` and `keeping` are the settings
(which import no torch, so that help is instant).
"""
