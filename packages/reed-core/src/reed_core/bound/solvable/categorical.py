"""A solvable model on a few states: any table q(x_0, z), any transition tables, everything by sums over states.

    q(x_t, z) = sum_{x_{t-1}} q(x_{t-1}, z) Q_t(x_t|x_{t-1})
    p_u = q(x_{t-1}) Q_t / q(x_t),   p_c = q(x_{t-1}, z) Q_t / q(x_t, z),   p(z|x_t) = q(x_t, z) / q(x_t)

A law is the table of probabilities itself: [k] for x_t, [k, l] for (x_t, z).
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.distributions import Categorical

from reed_core.bound.kernels import CategoricalKernel
from reed_core.bound.solvable.model import Heads, Information, Nodes, Paths


class TableHead:
    """A kernel for every step and state.

    Args:
        log_probs: [T, k, out], or [T, k, l, out] when it also sees z.
    """

    def __init__(self, log_probs: Float[Tensor, "T k ..."]) -> None:
        self.log_probs = log_probs

    def __call__(self, x: Int[Tensor, "m n"], z: Int[Tensor, "..."] | None = None, first: int = 1) -> CategoricalKernel:
        """The kernels of steps first, first + 1, ... at x, batch [m, n]."""
        steps = torch.arange(first - 1, first - 1 + x.shape[1])
        index = (steps, x) if z is None else (steps, x, z)
        return CategoricalKernel(self.log_probs[index])


class CategoricalModel:
    """A categorical forward process with a categorical latent.

    Args:
        data: q(x_0, z), positive, [k, l].
        transitions: Q_t(x_t | x_{t-1}) for t = 1..T, rows summing to 1, positive, [T, k, k].
    """

    def __init__(self, data: Float[Tensor, "k l"], transitions: Float[Tensor, "T k k"]) -> None:
        self.steps = transitions.shape[0]
        self.data, self.transitions = data, transitions
        joint, from_clean = [data], [torch.eye(data.shape[0], dtype=data.dtype)]
        for table in transitions:
            joint.append(table.mT @ joint[-1])
            from_clean.append(from_clean[-1] @ table)
        self.joint = torch.stack(joint)  # q(x_t, z), t = 0..T
        self.from_clean = torch.stack(from_clean)  # q(x_t | x_0), t = 0..T
        x_table = self.joint.sum(-1)
        pairs = x_table[:-1, :, None] * transitions  # q(x_{t-1}, x_t)
        triples = self.joint[:-1, :, None, :] * transitions[..., None]  # q(x_{t-1}, x_t, z)
        self.triples = triples
        self.exact = Heads(
            prior=CategoricalKernel(x_table[-1].log()),
            unconditional=TableHead((pairs / x_table[1:, None, :]).mT.log()),
            conditional=TableHead((triples / self.joint[1:, None]).permute(0, 2, 3, 1).log()),
            alignment=TableHead((self.joint / x_table[..., None])[1:].log()),
        )

    @classmethod
    def random(cls, generator: torch.Generator, steps: int, states: int, latents: int) -> "CategoricalModel":
        """A model with random tables, whose z says something of x_0 and whose steps forget most of it.

        Args:
            generator: Source of randomness.
            steps: T.
            states: k.
            latents: l.
        """
        told = 3.0 * torch.eye(latents, dtype=torch.float64)[torch.arange(states) % latents]
        noise = torch.randn(states, latents, generator=generator, dtype=torch.float64)
        data = torch.softmax(told + 0.8 * noise, -1) * _tables(generator, states)[:, None]
        rate = 2.5 / steps * (0.3 + 1.4 * torch.rand(steps, 1, 1, generator=generator, dtype=torch.float64))
        noise = _tables(generator, steps, states, states)
        stay = (-rate).exp()
        return cls(data, stay * torch.eye(states, dtype=torch.float64) + (1.0 - stay) * noise)

    def perturbed(self, generator: torch.Generator) -> Heads:
        """The exact heads with random factors on every probability, each head its own."""

        def shaken(log_probs: Tensor) -> Tensor:
            noise = torch.randn(log_probs.shape, generator=generator, dtype=log_probs.dtype)
            return torch.log_softmax(log_probs + 0.4 * noise, -1)

        return Heads(
            prior=CategoricalKernel(shaken(self.exact.prior.log_probs)),
            unconditional=TableHead(shaken(self.exact.unconditional.log_probs)),
            conditional=TableHead(shaken(self.exact.conditional.log_probs)),
            alignment=TableHead(shaken(self.exact.alignment.log_probs)),
        )

    def sample(self, count: int, generator: torch.Generator) -> Paths:
        """Draws from q(x_{0:T}, z)."""
        flat = torch.multinomial(self.data.flatten(), count, replacement=True, generator=generator)
        x = [flat // self.data.shape[1]]
        for table in self.transitions:
            x.append(torch.multinomial(table[x[-1]], 1, generator=generator)[:, 0])
        return Paths(x=torch.stack(x, 1), z=flat % self.data.shape[1])

    def log_forward(self, paths: Paths) -> Float[Tensor, "p"]:
        """Log-probability q(x_{0:T}, z)."""
        moves = Categorical(self.transitions[torch.arange(self.steps), paths.x[:, :-1]]).log_prob(paths.x[:, 1:])
        return self.log_data(paths.x[:, 0], paths.z) + moves.sum(-1)

    def log_data(self, x_0: Int[Tensor, "p"], z: Int[Tensor, "p"]) -> Float[Tensor, "p"]:
        """Log-probability q(x_0, z)."""
        return self.data.log()[x_0, z]

    def nodes(self, x_0: Int[Tensor, ""]) -> Nodes:
        """Every state, with its probability given x_0."""
        weight = self.from_clean[1:, x_0].mT
        return Nodes(x=torch.arange(weight.shape[0])[:, None].expand(-1, self.steps), weight=weight)

    def joint_nodes(self) -> Nodes:
        """Every pair (x_t, z), with its probability."""
        states, latents = self.data.shape
        x, z = (
            index.reshape(-1, 1).expand(-1, self.steps)
            for index in torch.meshgrid(torch.arange(states), torch.arange(latents), indexing="ij")
        )
        return Nodes(x=x, weight=self.joint[1:].flatten(1).mT, z=z)

    def noised(self, x_0: Int[Tensor, ""]) -> CategoricalKernel:
        """The kernel q(x_T | x_0)."""
        return CategoricalKernel(self.from_clean[-1, x_0].log())

    def posterior(self, x: Int[Tensor, "m T2"], x_0: Int[Tensor, ""]) -> CategoricalKernel:
        """The kernels q(x_{t-1} | x_t, x_0) of steps t = 2..T."""
        table = self.from_clean[1:-1, x_0, :, None] * self.transitions[1:]
        table = (table / self.from_clean[2:, x_0, None, :]).mT
        return CategoricalKernel(table[torch.arange(x.shape[1]), x].log())

    def marginal(self) -> CategoricalKernel:
        """The kernel q(x_T)."""
        return CategoricalKernel(self.joint[-1].sum(-1).log())

    def information(self) -> Information:
        """Entropies and conditional mutual information by enumeration of (x_{t-1}, x_t, z)."""
        joint, triples = self.joint, self.triples
        entropy = -(joint * (joint / joint.sum(-1, keepdim=True)).log()).sum((-2, -1))
        ratio = triples * triples.sum((1, 3), keepdim=True)
        ratio = ratio / (triples.sum(1, keepdim=True) * triples.sum(3, keepdim=True))
        return Information(entropy[0], entropy[1:], (triples * ratio.log()).sum((1, 2, 3)))

    def data_law(self) -> Float[Tensor, "k l"]:
        """The table q(x_0, z)."""
        return self.data

    def prior_law(self, heads: Heads) -> Float[Tensor, "k"]:
        """The table p(x_T)."""
        return heads.prior.log_probs.exp()

    def step_law(self, law: Float[Tensor, "k ..."], head: TableHead, t: int) -> Float[Tensor, "k ..."]:
        """One reverse step of a table."""
        table = head.log_probs[t - 1].exp()
        return table.mT @ law if law.ndim == 1 else torch.einsum("xz,xzy->yz", law, table)

    def reveal_law(self, law: Float[Tensor, "k"], head: TableHead, t: int) -> Float[Tensor, "k l"]:
        """The table of (x_t, z)."""
        return law[:, None] * head.log_probs[t - 1].exp()

    def as_kernel(self, law: Float[Tensor, "k l"]) -> CategoricalKernel:
        """A table as a distribution over the pairs (x, z), flattened."""
        return CategoricalKernel((law / law.sum()).flatten().log())

    def outcome(self, x: Int[Tensor, "*p"], z: Int[Tensor, "*p"]) -> Int[Tensor, "*p"]:
        """The index of a pair (x, z)."""
        return x * self.data.shape[1] + z

    def hybrid_head(self, heads: Heads, A: Float[Tensor, "T"]) -> TableHead:
        """The head p~ of steps 1..T."""
        given = CategoricalKernel(heads.conditional.log_probs)
        alone = CategoricalKernel(heads.unconditional.log_probs[:, :, None].expand_as(given.log_probs))
        return TableHead(alone.hybrid(given, A).kernel.log_probs)


def _tables(generator: torch.Generator, *shape: int) -> Float[Tensor, "..."]:
    logits = 0.7 * torch.randn(shape, generator=generator, dtype=torch.float64)
    return torch.softmax(logits, -1)
