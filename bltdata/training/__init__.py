"""Training, as the entropy model and the BLT share it.

`packing` fills rows with documents, `loop` takes the steps and keeps the state of a run, `optimiser` has AdamW and the
learning rate, `checkpoint` the files of a model, `config` the settings (which import no torch, so that help is instant).
"""
