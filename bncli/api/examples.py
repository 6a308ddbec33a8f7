"""An example of each function, which runs as it stands; a test runs them."""

from __future__ import annotations

EXAMPLES = {
    "diagnose": """
>>> import torch
>>> model = torch.nn.Sequential(torch.nn.Linear(4, 3), torch.nn.BatchNorm1d(3))
>>> _ = model[1].running_mean.fill_(9)  # as a wrong checkpoint would leave it
>>> batches = [torch.randn(32, 4) for _ in range(8)]
>>> report = bncli.diagnose(model, data=batches, fail_on="warning")
>>> report.findings[0].code, report.findings[0].subject
('BN807', '1')
>>> report.ok
False
""",
    "recalibrate": """
>>> import torch
>>> model = torch.nn.Sequential(torch.nn.Linear(4, 3), torch.nn.BatchNorm1d(3))
>>> batches = [torch.randn(512, 4) for _ in range(32)]
>>> report = bncli.recalibrate(model, data=batches)
>>> report.table("layers")["name"]
['1']
""",
    "capture": """
>>> import torch
>>> model = torch.nn.Sequential(torch.nn.Linear(4, 3), torch.nn.BatchNorm1d(3)).train()
>>> with bncli.capture(model) as stats:
...     for _ in range(8):
...         _ = model(torch.randn(32, 4))
>>> stats
<bncli.capture of Sequential: 1 of 1 BatchNorm layers called, 8 calls>
>>> report = stats.diagnose()
>>> stats = bncli.capture(model, data=[torch.randn(32, 4)])
>>> stats
<bncli.capture of Sequential: 1 BatchNorm layers>
""",
    "inspect_checkpoint": """
>>> import torch
>>> model = torch.nn.Sequential(torch.nn.Linear(4, 3), torch.nn.BatchNorm1d(3))
>>> report = bncli.inspect_checkpoint(model.state_dict(), eps=1e-3)
>>> report.table("layers")["name"], report.table("layers")["eps"]
(['1'], [0.001])
>>> [finding.code for finding in report.findings]  # it was never trained
['BN103']
>>> report.ok
True
""",
    "compare_checkpoints": """
>>> import copy, torch
>>> before = torch.nn.Sequential(torch.nn.Linear(4, 3), torch.nn.BatchNorm1d(3))
>>> after = copy.deepcopy(before)
>>> _ = after[1](torch.ones(2, 3))
>>> report = bncli.compare_checkpoints(before, after, expect="frozen:1")
>>> report.table("layers")["state"]
['statistics-moved']
>>> report.ok
False
""",
    "diff": """
>>> import numpy as np
>>> expected = np.arange(6.0).reshape(3, 2)
>>> actual = expected + [0, 1]
>>> report = bncli.diff(actual, expected)
>>> worst = report.table("channels").rows[0]
>>> worst["channel"], worst["max_abs_diff"]
(1, 1.0)
>>> report.ok
False
""",
    "identify": """
>>> import numpy as np
>>> x = np.arange(12.0).reshape(4, 3)
>>> output = (x - x.mean(0)) / np.sqrt(x.var(0, ddof=1) + 1e-5)
>>> report = bncli.identify(x, output)
>>> best = report.table("hypotheses").rows[0]
>>> best["mode"], best["ddof"]
('training', 1)
""",
    "compute": """
>>> import numpy as np
>>> x = np.arange(12.0).reshape(4, 3)
>>> report = bncli.compute(x, momentum=0.5)
>>> report.table("channels")["mean"]
[4.5, 5.5, 6.5]
>>> report.table("channels")["running_mean"]
[2.25, 2.75, 3.25]
>>> bncli.compute([[1, 2], [3, 4]]).facts["count"]  # lists of numbers are float32
2
""",
    "trace": """
>>> import numpy as np
>>> x = np.arange(12.0).reshape(4, 3)
>>> report = bncli.trace(x, channel=1)
>>> steps = dict(zip(report.table("steps")["quantity"], report.table("steps")["value"]))
>>> steps["mean"], steps["var"]
(5.5, 11.25)
""",
    "compare_norms": """
>>> import numpy as np
>>> report = bncli.compare_norms(np.arange(24.0).reshape(2, 3, 4), groups=3)
>>> report.table("norms")["norm"][:2]
['BatchNorm', 'LayerNorm']
""",
    "simulate_ema": """
>>> report = bncli.simulate_ema(generate=(32, 64, 28), batches=60, momentum=0.1)
>>> report.facts["batches"], round(report.facts["half_life"], 2)
(60, 6.58)
""",
    "conventions": """
>>> report = bncli.conventions(from_="keras3", to="pytorch", momentum=0.99)
>>> round(report.facts["momentum_to"], 6)
0.01
""",
    "rules": """
>>> bncli.rules("BN203").facts["code"]
'BN203'
""",
    "schema": """
>>> bncli.schema()["title"]
'bncli report'
""",
}
