"""Writes callbacks.json: decisions of Keras's EarlyStopping and ReduceLROnPlateau. Needs keras 3.15.0, scipy and jax; run: python callbacks.py > callbacks.json"""
import os; os.environ["KERAS_BACKEND"]="numpy"
import json, random, keras
import numpy as np
from keras.callbacks import EarlyStopping, ReduceLROnPlateau
class Opt: 
    def __init__(s, lr): s.learning_rate=np.float32(lr)
class M:
    def __init__(s): s.optimizer=Opt(0.001); s.stop_training=False; s.w=None
    metrics=[]
    def get_weights(s): return s.w
    def set_weights(s,w): s.restored=w
def run(values, monitor, mode, es, rp):
    m=M(); e=EarlyStopping(monitor=monitor,mode=mode,restore_best_weights=True,**es); r=ReduceLROnPlateau(monitor=monitor,mode=mode,**rp)
    e.set_model(m); r.set_model(m); e.on_train_begin(); r.on_train_begin(); lrs=[]; stop=0
    n=0
    for i,v in enumerate(values):
        m.w=i+1
        # the reduce-on-plateau list goes on after the stop, as a list of its own
        r.on_epoch_end(i,{monitor:v}); m.optimizer.learning_rate=np.float32(m.optimizer.learning_rate); lrs.append(float(m.optimizer.learning_rate))
        if not m.stop_training:
            e.on_epoch_end(i,{monitor:v})
            if m.stop_training: stop=i+1; e.on_train_end(); rest=m.restored
    if not stop: e.on_train_end(); rest=m.restored
    return dict(monitor=monitor,early_stopping=es,reduce_on_plateau=rp,values=values,learning_rates=[round(float(x),12) for x in lrs],stop=stop,restored=rest)
random.seed(7)
out=[]
def vals(n,down,noise):
    v=0.9
    l=[]
    for i in range(n):
        v*=down; l.append(float(np.float32(round(v+random.uniform(-noise,noise),4))))
    return [round(x,4) for x in l]
for k in range(12):
    mon,mode=[("val_loss","min"),("val_accuracy","max"),("loss","min"),("accuracy","max")][k%4]
    v=vals(24,random.choice([0.9,0.8,0.97]),random.choice([0.01,0.05,0.1]))
    if mode=="max": v=[round(1-x,4) for x in v]
    out.append(run(v,mon,mode,dict(patience=random.choice([0,1,2,3,6]),min_delta=random.choice([0,0.001,0.02])),
      dict(factor=random.choice([0.1,0.5]),patience=random.choice([1,2,3]),min_delta=random.choice([0.0001,0.01]),cooldown=random.choice([0,1,3]),min_lr=random.choice([0,5e-5]))))
print("{\"keras\": \"%s\", \"cases\": [" % keras.__version__); print(",\n".join(json.dumps(c) for c in out)); print("]}")
