# What jobs execute after headsweep/training/loop.py, in its namespace: in the copy of the code that they run, or in
# that which they find imported. It has an effect in an output folder with a file `sabotaged`. In its seventh step, in
# the middle of its second epoch, a run waits until there is a file `calm` in its folder; one of seed 6 fails there. The
# file `began` lists the steps with which the run's processes began, and `here`, for rank 1 `here1`, holds a process
# that waits.
import os

_take_step = Training._train_step


def _disturbed_step(self, batch):
    place = self.folder.path
    if not (place.parents[1] / "sabotaged").exists():
        return _take_step(self, batch)
    if self.ranks.leads and not hasattr(self, "has_begun"):
        self.has_begun = True
        with (place / "began").open("a") as file:
            file.write(f"{self.state.step}\n")
    if self.state.step == 6 and not (place / "calm").exists():
        if self.run.seed == 6:
            raise RuntimeError("seed 6 is unlucky")
        here = place / f"here{self.ranks.rank or ''}"
        here.with_suffix(".part").write_text(str(os.getpid()))
        here.with_suffix(".part").rename(here)
        while not (place / "calm").exists():
            time.sleep(0.05)
    return _take_step(self, batch)


Training._train_step = _disturbed_step
