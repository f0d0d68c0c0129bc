"""Trains the base network with Keras on TensorFlow in turns: keras_turns.py DATA THREADS."""

import os
import sys

folder, threads = sys.argv[1:]
os.environ["KERAS_BACKEND"] = "tensorflow"
os.environ["TF_CPP_MIN_LOG_LEVEL"] = "2"
os.environ["OMP_NUM_THREADS"] = threads

import keras
import numpy as np
import tensorflow as tf
from keras import layers

from turns import BATCH, load, serve

tf.config.threading.set_intra_op_parallelism_threads(int(threads))
keras.utils.set_random_seed(1)

(x, labels), (x_test, labels_test) = load(folder)
network = keras.Sequential(
    [
        keras.Input((28, 28, 1)),
        layers.Conv2D(32, 3, activation="relu"),
        layers.MaxPooling2D(),
        layers.Conv2D(64, 3, activation="relu"),
        layers.MaxPooling2D(),
        layers.Conv2D(64, 3, activation="relu"),
        layers.Flatten(),
        layers.Dense(70, activation="relu"),
        layers.Dense(10, activation="softmax"),
    ]
)
network.compile(
    optimizer="rmsprop",
    loss="sparse_categorical_crossentropy",
    metrics=["accuracy"],
    jit_compile=False,
)
order = np.empty(0, np.int64)


def train(steps):
    global order
    while len(order) < steps * BATCH:
        order = np.concatenate([order, np.random.permutation(len(x))])
    rows, order = np.split(order, [steps * BATCH])
    network.fit(x[rows], labels[rows], batch_size=BATCH, shuffle=False, verbose=0)


def evaluate():
    network.evaluate(x_test, labels_test, batch_size=250, verbose=0)


serve(train, evaluate)
