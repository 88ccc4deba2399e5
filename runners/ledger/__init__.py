"""The experiment log: a row per run in RECIPE_HOME/ledger.db, what its lists need in columns, its result beside it."""

from runners.ledger.filters import Filter as Filter
from runners.ledger.ledger import UNFINISHED as UNFINISHED
from runners.ledger.ledger import Ledger as Ledger
from runners.ledger.rows import Known as Known
from runners.ledger.rows import Row as Row
from runners.ledger.schema import SCHEMA_VERSION as SCHEMA_VERSION
