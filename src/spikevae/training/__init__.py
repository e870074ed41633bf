"""Training: one loop over a stack of fits that share a shape."""

from .budgets import BudgetReport as BudgetReport
from .budgets import budget_report as budget_report
from .build import build_stack as build_stack
from .dictionary import DictionaryStack as DictionaryStack
from .fits import FitResult as FitResult
from .fits import FitStack as FitStack
from .loop import Interrupted as Interrupted
from .loop import train as train
from .parallel import data_parallel as data_parallel
from .ranks import RanksLost as RanksLost
from .rows import Rows as Rows
from .scale import warn_of_scale as warn_of_scale
from .stack import Stack as Stack
from .tensorboard import TensorBoard as TensorBoard
from .watching import Callback as Callback
from .watching import StopTraining as StopTraining
from .watching import Window as Window
