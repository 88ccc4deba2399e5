"""A small double of the `pulumi` command: it speaks Pulumi's own protocol and keeps a state like the real one's.

Real in a test with it: pulumi.automation, the program, the SDK's serialization, the dynamic provider's process
(`python -m pulumi.dynamic`) and every call that it gets. The double decides the steps, in the order of the real
engine, and writes the state before and after each.

What it cannot prove, because only the real command can show it: that its state can be read by the real one, that two
real engines exclude each other, how the real one encrypts, that its steps, texts and exit codes are the same in each
corner, how other backends than file:// behave, and how the real language host starts a plain program. The same tests
with the real command, which RECIPE_TEST_PULUMI names, show all of that but the other backends.

A test can end it at a chosen moment: ENGINE_DOUBLE_DIE=after-create[:NAME], or a file that ENGINE_DOUBLE_DIE_FILE
names with the same text (the file is removed, so it happens once). The moments are {before,after}-{create,update,
delete,read}; "after" is between the provider's answer and the write of the state. It dies by SIGKILL, and its
provider's process lives on, unless that sees to it itself, as with the real engine. As the real one it dies as well
when it writes to somebody who does not listen any more. ENGINE_DOUBLE_VERSION is the version that it says it has.
The real one dies at the same moments, by its provider's hand: see `moments/sitecustomize.py`.
"""
