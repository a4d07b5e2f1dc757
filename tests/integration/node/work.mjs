// Ordinary work with node-postgres: several clients at the same time, each with prepared statements under the same names.
//
// node work.mjs <connection URI>: prints as JSON what every client found; ends with an error if anything is not as it was
// written.

import assert from "node:assert/strict";
import pg from "pg";

const CLIENTS = 8;
const TURNS = 10;
const NOON = new Date("2026-02-03T12:00:00Z");

// `name` makes node-postgres prepare the statement once for each connection and use it from then on.
const insert = {
  name: "insert",
  text: "INSERT INTO things VALUES ($1, $2, $3, $4, $5, $6) RETURNING owner, number",
};
const byNumber = { name: "by_number", text: "SELECT * FROM things WHERE owner = $1 AND number = $2" };
const count = { name: "count", text: "SELECT count(*)::int AS count FROM things WHERE owner = $1" };

const thing = (owner, number) => ({
  owner,
  number,
  line: `line ${number} of ${owner} ä€`,
  data: Buffer.from([0, 255, owner, number]),
  facts: { owner, parts: [1, null, number] },
  moment: new Date(NOON.getTime() + number),
});

async function refused(work, code) {
  await assert.rejects(work, (error) => error.code === code);
}

async function counted(client, owner, expected) {
  const { rows } = await client.query({ ...count, values: [owner] });
  assert.equal(rows[0].count, expected);
}

async function work(pool, owner) {
  const client = await pool.connect();
  try {
    await client.query("DELETE FROM things WHERE owner = $1", [owner]);
    for (let number = 0; number < TURNS; number++) {
      const written = thing(owner, number);
      const inserted = await client.query({ ...insert, values: Object.values(written) });
      assert.deepEqual({ ...inserted.rows[0] }, { owner, number });
      const { rows } = await client.query({ ...byNumber, values: [owner, number] });
      assert.deepEqual({ ...rows[0] }, written);
    }
    await client.query("BEGIN");
    await client.query({ ...insert, values: Object.values(thing(owner, 99)) });
    await client.query("SAVEPOINT here");
    await refused(client.query({ ...insert, values: Object.values(thing(owner, 99)) }), "23505");
    await client.query("ROLLBACK TO here");
    await counted(client, owner, TURNS + 1);
    await client.query("ROLLBACK");
    await counted(client, owner, TURNS);
    await refused(client.query({ ...insert, values: Object.values(thing(owner, 0)) }), "23505");
    await refused(client.query("SELECT 1 / $1::int", [0]), "22012");
    await refused(client.query({ name: "wrong", text: "SELECT * FROM nowhere" }), "42P01");
    // Sent at once: node-postgres queues them, each waits for the one before.
    const numbers = [...Array(20).keys()];
    const answers = await Promise.all(
      numbers.map((number) => client.query({ name: "twice", text: "SELECT $1::int * 2 AS twice", values: [number] })),
    );
    assert.deepEqual(answers.map(({ rows }) => rows[0].twice), numbers.map((number) => number * 2));
    const [first, second] = await client.query("SELECT 1 AS one; SELECT 2 AS two");
    assert.deepEqual([first.rows[0].one, second.rows[0].two], [1, 2]);
    const { rows } = await client.query({ text: "SELECT owner, number FROM things WHERE owner = $1 ORDER BY 2", values: [owner], rowMode: "array" });
    return rows;
  } finally {
    client.release();
  }
}

async function listen(connectionString) {
  const listener = new pg.Client({ connectionString });
  await listener.connect();
  const heard = [];
  const all = new Promise((resolve) => {
    listener.on("notification", ({ payload }) => heard.push(payload) === 5 && resolve());
  });
  await listener.query("LISTEN news");
  const sender = new pg.Client({ connectionString });
  await sender.connect();
  for (let number = 0; number < 5; number++) {
    await sender.query("SELECT pg_notify('news', $1)", [`number ${number}`]);
  }
  await all;
  await Promise.all([listener.end(), sender.end()]);
  return heard;
}

const connectionString = process.argv[2];
const pool = new pg.Pool({ connectionString, max: CLIENTS });
const found = await Promise.all([...Array(CLIENTS).keys()].map((owner) => work(pool, owner)));
// A pool of the program itself, whose clients come and go between two statements.
const sums = await Promise.all(
  [...Array(50).keys()].map((number) => pool.query({ name: "thrice", text: "SELECT $1::int * 3 AS x", values: [number] })),
);
const heard = await listen(connectionString);
await pool.end();
console.log(JSON.stringify({ found, sums: sums.map(({ rows }) => rows[0].x), heard }));
