"""The texts that a model writes about videos: captions of clips, and whole videos told rightly and wrongly."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from mmalign.config.temporal_schema import TemporalConfig
from mmalign.errors import RowError
from mmalign.formats.preference import Preference, Response
from mmalign.formats.prompt import Prompt
from mmalign.generate.answers import Generated
from mmalign.pairs.perturbation import Perturbed, different
from mmalign.recipes import temporal_prompts as prompts
from mmalign.recipes.stage_records import Record, left_out
from mmalign.recipes.temporal_pairs import pair, why_not
from mmalign.recipes.temporal_work import Work


class Telling(NamedTuple):
    """One way to tell a video.

    Args:
        video: its name.
        of: what is told from: captions, clips or frames.
        made: how wrongly; None tells it rightly.
    """

    video: str
    of: str
    made: Perturbed | None

    @property
    def id(self) -> str:
        """Name of the item."""
        return f"{self.true_id}-{self.made.how}-{self.made.factor}" if self.made else self.true_id

    @property
    def true_id(self) -> str:
        """Name of the right telling beside which this one stands."""
        return f"{self.video}#{self.of}"


class Caption(NamedTuple):
    """The caption of one clip of a video, counted from 0."""

    video: str
    clip: int

    @property
    def id(self) -> str:
        """Name of the item."""
        return f"{self.video}#clip-{self.clip}"


class Tellings:
    """What is asked about the videos of a run, and what is made of the answers.

    Args:
        config: of the run.
        work: with the stage "frames" done.
        model: who tells.
    """

    def __init__(self, config: TemporalConfig, work: Work, model: str) -> None:
        self.config, self.work, self.model = config, work, model
        self.seed = config.temporal.seed

    def captions(self) -> dict[str, Caption]:
        """Return the captions that are needed, by their ids; none where nothing is told from captions."""
        if "captions" not in self.config.perturbations.of:
            return {}
        frames = self.work.stages["frames"]
        every = (Caption(video, clip) for video in frames for clip in range(len(frames[video]["frames"])))
        return {caption.id: caption for caption in every}

    def caption_prompt(self, caption: Caption) -> Prompt:
        """Return what is asked for a caption: the clip, beside the one before it."""
        frames = self.work.stages["frames"][caption.video]["frames"]
        seen = frames[max(0, caption.clip - 1) : caption.clip + 1]
        return prompts.of_clip(caption.id, caption.video, seen)

    def kept_caption(self, caption: Caption, generated: Generated) -> Record:
        """Return the record of a caption.

        Raises:
            RowError: nothing is left of the answer.
        """
        (answer,) = generated.texts
        text = prompts.caption_in(answer, is_first=caption.clip == 0)
        if not text:
            raise RowError("answer holds no caption", field="caption", value=answer[-60:])
        return {"answer": answer, "caption": text}

    def without_captions(self) -> list[str]:
        """Return the videos that are not told from captions, since one is missing."""
        videos = dict.fromkeys(caption.video for caption in self.captions().values())
        return [video for video in videos if not self._is_captioned(video)]

    def tellings(self) -> dict[str, Telling]:
        """Return every way to tell every video, by ids: from what there is, the right one first, then easiest first."""
        return {telling.id: telling for telling in self._every_telling()}

    def _every_telling(self) -> Iterator[Telling]:
        how, factors = self.config.perturbations.how, self.config.perturbations.factors
        for video in self.work.stages["frames"]:
            frames = self.work.stages["frames"][video]["frames"]
            clips = [group for group, _ in self.work.stages["clips"][video]["clips"]]
            for of in self.config.perturbations.of:
                if of == "captions" and not self._is_captioned(video):
                    continue
                seen = [group for group, indices in zip(clips, frames, strict=True) for _ in indices]
                groups = seen if of == "frames" else clips
                yield Telling(video, of, None)
                name = f"{video}#{of}"
                for made in different(len(groups), how, factors, seed=self.seed, name=name, groups=groups):
                    yield Telling(video, of, made)

    def prompt(self, telling: Telling) -> Prompt:
        """Return what is asked for a telling: items in their order, or in the wrong one."""
        frames = self.work.stages["frames"][telling.video]["frames"]
        if telling.of == "captions":
            return prompts.of_captions(telling.id, _ordered(self._captions_of(telling.video), telling.made))
        clips = frames if telling.of == "clips" else [[index] for clip in frames for index in clip]
        shown = [index for clip in _ordered(clips, telling.made) for index in clip]
        return prompts.of_frames(telling.id, telling.video, shown, self.request(telling.video))

    def request(self, video: str) -> str:
        """Return what a person asks of a video."""
        return prompts.request_of(video, self.seed)

    def kept_telling(self, telling: Telling, generated: Generated) -> Record:
        """Return the record of a telling, with the order behind it.

        Raises:
            RowError: nothing is left of the answer.
        """
        (answer,) = generated.texts
        text = prompts.after_thinking(answer)
        if not text:
            raise RowError("answer ends in its thoughts", field="telling", value=answer[-60:])
        (response,) = generated.row().responses
        record = {"text": text, "scores": dict(response.scores)}
        return record if telling.made is None else {**record, "order": telling.made.order}

    def pairs(self) -> dict[str, Telling]:
        """Return the wrong tellings that stand beside a right one, by their ids."""
        told = self.work.stages["tellings"]
        return {
            id: telling
            for id, telling in self.tellings().items()
            if telling.made is not None and id in told and telling.true_id in told
        }

    def why_not(self, telling: Telling) -> Record:
        """Return the record of a pair: left out by a rule, or its row."""
        told = self.work.stages["tellings"]
        true, wrong = told[telling.true_id], told[telling.id]
        if why := why_not(true["text"], wrong["text"], telling.made.how, self.config.pairs.most_length_ratio):
            return left_out(why)
        return {"difficulty": telling.made.difficulty}

    def row(self, telling: Telling) -> Preference:
        """Return the row of a pair."""
        told, frames = self.work.stages["tellings"], self.work.stages["frames"][telling.video]
        responses = [
            Response.of(told[id]["text"], model=self.model, scores=told[id]["scores"])
            for id in (telling.true_id, telling.id)
        ]
        return pair(
            telling.id,
            video=telling.video,
            request=self.request(telling.video),
            true=responses[0],
            wrong=responses[1],
            made=telling.made,
            of=telling.of,
            spans_s=frames["spans_s"],
            model=self.model,
        )

    def _caption_ids(self, video: str) -> list[str]:
        return [Caption(video, clip).id for clip in range(len(self.work.stages["frames"][video]["frames"]))]

    def _is_captioned(self, video: str) -> bool:
        """Say whether every clip of a video has a caption."""
        return all(id in self.work.stages["captions"] for id in self._caption_ids(video))

    def _captions_of(self, video: str) -> list[str]:
        captions = self.work.stages["captions"]
        return [captions[id]["caption"] for id in self._caption_ids(video)]


def _ordered(items: list, made: Perturbed | None) -> list:
    return list(items) if made is None else [items[place] for place in made.order]
