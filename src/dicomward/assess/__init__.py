"""What can be found out about archives from outside: scope, judgement, verdicts. Pure; `io` looks."""
