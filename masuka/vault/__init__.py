"""The vault: a plain folder elsewhere in which everything is kept that a lost machine would take.

The live database and all files stay on local disk. What goes to the vault is immutable and
named by its content, so nothing there is ever overwritten, whoever else writes to it:

    db/gen-000012-<runtime>-<sha16>.db      a whole, checked copy of the database
    db/head-000012-<runtime>-<sha16>.json   what it is and which ones it follows, written last
    files/<as in the workspace>~<sha12>.png pictures, LoRAs, checkpoints, logs
    index/<runtime>-000003-<sha16>.json     which file is kept under which name, written last

`disk` touches the folder, `moving` brings files in and out, `generations` and `mirror` know
what lies there, `keeper` decides when. Only the keeper's own threads wait for the folder.
"""
