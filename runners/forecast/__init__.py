"""How long a run will take and what it will cost, before it is begun; and how good that was, once it is over."""
