"""The database: the only place where SQL is written.

    with Store.open(workspace) as store:
        dataset = datasets.add_dataset(store, actor=actor, name="Mira", …)

One module per noun holds its frozen row and its functions; `connect` owns files,
connections and transactions; `migrations` owns the schema.
"""
