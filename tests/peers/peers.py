"""What gbstats, statsmodels and SciPy say of the cases on standard input, as JSON lines in the same order."""

import json
import sys

import numpy as np
from gbstats.frequentist.tests import FrequentistConfig, TwoSidedTTest
from gbstats.models.statistics import SampleMeanStatistic
from scipy import stats
from statsmodels.regression.linear_model import OLS
from statsmodels.stats.multitest import multipletests


def welch(case):
    arms = [SampleMeanStatistic(n=n, sum=s, sum_squares=ss) for n, s, ss in case["arms"]]
    config = FrequentistConfig(difference_type="absolute")
    found = TwoSidedTTest(arms[0], arms[1], config).compute_result()
    mean = [arm.mean for arm in arms]
    error = [(arm.variance / arm.n) ** 0.5 for arm in arms]
    t = stats.ttest_ind_from_stats(
        mean[1], arms[1].variance**0.5, arms[1].n, mean[0], arms[0].variance**0.5, arms[0].n, equal_var=False
    )
    return [found.expected, *found.ci, t.pvalue, (error[0] ** 2 + error[1] ** 2) ** 0.5]


def clustered(case):
    y, treated, group = (np.array(case[key]) for key in ("y", "treated", "group"))
    design = np.column_stack([np.ones(len(y)), treated])
    model = OLS(y, design).fit(
        cov_type="cluster", cov_kwds={"groups": group, "use_correction": False, "df_correction": False}
    )
    groups = len(set(group.tolist()))
    error = model.bse[1] * (groups / (groups - 1)) ** 0.5
    return [model.params[1], error, 2 * stats.t.sf(abs(model.params[1] / error), groups - 1)]


def ratio(case):
    counts, weights = np.array(case["counts"]), np.array(case["weights"])
    return [stats.chisquare(counts, counts.sum() * weights / weights.sum()).pvalue]


def holm(case):
    return multipletests(case["p"], method="holm")[1].tolist()


def headlines(case):
    return [stats.chi2_contingency(table, correction=False).pvalue for table in case["tables"]]


for line in sys.stdin:
    case = json.loads(line)
    print(json.dumps([float(number) for number in globals()[case["kind"]](case)]))
