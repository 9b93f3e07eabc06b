#!/usr/bin/env bash
# kafkajs 2.2.4 on Apache Kafka 4.4.0: with idempotent: true and parallel sends, one lost answer loses acknowledged records and
# doubles others.
#
# What happens: 300 calls of send run in parallel, ten records each, with idempotent: true and maxInFlightRequests: 1, the settings
# that kafkajs' guide names for exactly-once. Once in a while a connection is closed after the broker has written a batch and before
# its answer arrives. Every call resolves. The log then lacks some of the records and holds as many others twice. Without lost answers,
# or with one send at a time, the log is complete.
# Why (deduced from the log): sequence numbers move on only with an answer, and calls that wait are given theirs before that. After a lost answer another call
# goes out under the sequence of the batch that is already there. The broker takes it for a repeat, acknowledges it and drops it. The
# batch that was written goes again under a new sequence.
# Who is affected: Node.js services that publish from several requests at a time and rely on the idempotent producer.
#
# Output seen (kafkajs 2.2.4, Node.js 20 and 22, Kafka 4.4.0; the numbers vary with timing):
#   answers lost: 5; acknowledged 3000; in the log 3000, distinct 2960, acknowledged and lost 40, twice 40
# Needs: JDK 17+, Maven, Node.js 18+ with npm, Python 3. Fails if the behaviour changes.
