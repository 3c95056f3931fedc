"""A torchvision classifier, trained on a GPU where there is one; resumes after the last complete epoch.

[training]
entrypoint = "torchvision_classifier:train"
model = "resnet18.yaml"              # any model of torchvision's by name
license = "BSD-3-Clause"
hyperparameters = {lr = 0.01}
"""

import torch
from torchvision import datasets, models, transforms

from gpu_offload.remote_job.entrypoint import Trained, TrainingContext


def loader(context: TrainingContext, split: str, seed: int) -> torch.utils.data.DataLoader:
    """Return the batches of a split; their order follows from the seed alone."""
    side = context.spec.image_size
    scale = transforms.Compose([transforms.Resize((side, side)), transforms.ToTensor()])
    order = torch.Generator().manual_seed(seed)
    pictures, shuffle = datasets.ImageFolder(str(context.tree / split), scale), split == "train"
    return torch.utils.data.DataLoader(pictures, context.spec.batch, shuffle=shuffle, generator=order)


def train(context: TrainingContext) -> Trained | None:
    """Train each epoch, measure it, keep it; stop between batches when told to."""
    spec = context.spec
    device = "cuda" if spec.device == "auto" and torch.cuda.is_available() else "cpu"
    torch.manual_seed(spec.seed)
    val = loader(context, "val", 0)
    net = models.get_model(spec.model.removesuffix(".yaml"), num_classes=len(val.dataset.classes)).to(device)
    optimizer = torch.optim.SGD(net.parameters(), lr=spec.hyperparameters.get("lr", 0.01), momentum=0.9)
    if (checkpoint := context.resume()) is not None:
        state = torch.load(checkpoint, map_location=device, weights_only=True)
        net.load_state_dict(state["net"])
        optimizer.load_state_dict(state["optimizer"])
    accuracy = 0.0
    for epoch in range(context.epochs_completed + 1, spec.epochs + 1):
        torch.manual_seed(spec.seed + epoch)  # for dropout: a resumed epoch draws the same
        net.train()
        batches = loader(context, "train", spec.seed + epoch)
        for number, (pictures, labels) in enumerate(batches, 1):
            loss = torch.nn.functional.cross_entropy(net(pictures.to(device)), labels.to(device))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            context.progress(epoch=epoch, batch=number, batches=len(batches), losses={"loss": loss.item()})
            if context.interrupted():
                return None
        net.eval()
        with torch.inference_mode():
            right = sum(int((net(x.to(device)).argmax(1).cpu() == y).sum()) for x, y in val)
        accuracy = right / len(val.dataset)
        context.epoch(epoch, metrics={"accuracy": accuracy}, losses={"loss": loss.item()})
        kept = context.output / "state.pt"
        torch.save({"net": net.state_dict(), "optimizer": optimizer.state_dict()}, kept)
        context.checkpoint(kept, epochs_completed=epoch)
    model = context.output / "weights.pth"
    torch.save(net.state_dict(), model)
    return Trained(model, {"accuracy": accuracy})
