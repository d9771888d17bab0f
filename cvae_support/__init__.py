"""What the tutorial on the class-conditional VAE runs on. Nothing happens at import.

config       what defines a trained model, and its fingerprint
data         Fashion-MNIST, found and verified
files        where files are kept, and how they are written
layers       residual block, attention, adaptive group normalization
models       encoder, decoder, and the VAE in four kinds: unconditional, spatial, added, adaln
peers        two small networks to compare with, which wear the VAE's interface
losses       reconstruction and KL
training     one loop for every model, on Lightning Fabric
cpu          what makes a training step faster on a CPU
gpu          the same on a GPU
muon         the optimizer of the recipe of that name
checkpoints  safetensors and JSON
runs         a training run: its device, its folder, and what an error leaves there
trained      load_or_train: the model of a configuration, shipped or trained
study        the experiments the page reports, and their results
judge        two classifiers of our own, which say what a picture shows
metrics      measures of samples and latents, on tensors
latents      samples, reconstructions, paths and maps of the latent space
evaluate     every measure of one model
tables       the tables of results
figures      every figure of the page
export       ONNX files, and what the page's live decoder loads
explore      the live decoder for a notebook
"""

__version__ = "0.1.0"
