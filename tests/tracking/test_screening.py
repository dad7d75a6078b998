"""MLflow and a run that was screened out."""

from headsweep.tracking.mlflow.reconcile import reconcile
from headsweep.tracking.mlflow.store import client
from headsweep.tracking.screening import Round, Screening

TAG = "headsweep.screened_out"


def test_a_run_is_tagged_as_screened_out_until_it_is_trained_on(make_run, make_sweep, uri, experiment_id, result):
    run, other = make_run("a", epochs=2), make_run("b", epochs=2)
    sweep = make_sweep([run, other])
    run.checkpoint.touch()
    sweep.write_screening(Screening(2, 20, 2, (Round(2, {"g": 0.1, "h": 0.2}, ["h"]),)))
    sweep.register([run, other])
    held = reconcile(run, uri, experiment_id)
    assert held is not None
    store = client(uri)
    assert store.get_run(held.run_id).data.tags[TAG] == "2 of 20 epochs"
    sweep.forget_screening()
    run.finish(result)
    reconcile(run, uri, experiment_id)
    assert TAG not in store.get_run(held.run_id).data.tags
    assert store.get_run(held.run_id).info.status == "FINISHED"
