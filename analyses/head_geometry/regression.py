"""Regression of one number per head on several others, in the sample and on layers left out.

Standardised least squares with variance inflation, and R² cross-validated with whole layers as folds: heads of one
layer are alike, so a fold of single heads would have seen its answers already.
"""

from dataclasses import dataclass

import numpy as np

from analyses.numerics import intervals

COLLINEAR = 1e12  # condition of the predictors' correlation matrix beyond which the coefficients are rounding errors


@dataclass(frozen=True, slots=True, kw_only=True)
class Regression:
    """Least squares of the standardised outcome on standardised predictors."""

    predictors: tuple[str, ...]
    beta: list[float] | None  # one per predictor, outcome deviations per predictor deviation; None where collinear
    vif: list[float] | None  # variance inflation 1/(1 − R²_j) ≥ 1; above 10 a coefficient means little
    r2: float  # in the sample, 0 to 1
    # 1 − Σ(y − ŷ)²/Σ(y − ȳ)², each layer predicted from the others, ȳ over all heads; negative if the mean does better
    r2_out_of_sample: float
    r2_out_of_sample_interval: tuple[float, float] | None  # 90 %, bootstrap over layers, predictions held fixed


def regress(names: tuple[str, ...], x: np.ndarray, y: np.ndarray, layer: np.ndarray, *, seed: int) -> Regression:
    """Regress y on x, in and out of sample.

    Parameters
    ----------
    x : (head, predictor) and y : (head), float64, none of them constant.
    layer : (head) integers, the fold of each.

    Returns
    -------
    Regression. Predictions and R² are well defined also for collinear predictors; the coefficients are not.
    """
    x = (x - x.mean(0)) / x.std(0)
    y = (y - y.mean()) / y.std()
    correlation = x.T @ x / len(x)
    collinear = np.linalg.cond(correlation) > COLLINEAR
    fitted = _predict(x, y, x)
    folds = [layer == k for k in np.unique(layer)]
    errors, squares = np.empty(len(folds)), np.empty(len(folds))
    for k, fold in enumerate(folds):
        # With a single layer nothing is left to learn from but the mean of nothing: predict the mean.
        predicted = _predict(x[~fold], y[~fold], x[fold]) if len(folds) > 1 else np.zeros(fold.sum())
        errors[k] = np.square(y[fold] - predicted).sum()
        squares[k] = np.square(y[fold]).sum()
    return Regression(
        predictors=names,
        beta=None if collinear else _coefficients(x, y)[1:].tolist(),
        vif=None if collinear else np.diag(np.linalg.inv(correlation)).tolist(),
        r2=float(1 - np.square(y - fitted).mean()),
        r2_out_of_sample=float(1 - errors.sum() / squares.sum()),
        r2_out_of_sample_interval=intervals.bootstrap(
            lambda drawn: 1 - errors[drawn].sum(1) / squares[drawn].sum(1), len(folds), seed=seed
        ),
    )


def _coefficients(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return np.linalg.lstsq(np.column_stack([np.ones(len(x)), x]), y, rcond=None)[0]


def _predict(x: np.ndarray, y: np.ndarray, new: np.ndarray) -> np.ndarray:
    coefficients = _coefficients(x, y)
    return coefficients[0] + new @ coefficients[1:]
