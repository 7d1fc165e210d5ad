//! A line to a backend that can be made to carry nothing, as when every packet is lost.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex};

/// Forwards TCP. Ends with the program.
pub struct Line {
    pub address: SocketAddr,
    carries: Arc<Carries>,
}

struct Carries {
    is_so: Mutex<bool>,
    changed: Condvar,
}

impl Carries {
    fn wait(&self) {
        let is_so = self.is_so.lock().expect("not poisoned");
        let so = self.changed.wait_while(is_so, |is_so| !*is_so);
        drop(so.expect("not poisoned"));
    }
}

impl Line {
    /// A line to this server.
    pub fn to(server: SocketAddr) -> Line {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("its address");
        let carries = Arc::new(Carries {
            is_so: Mutex::new(true),
            changed: Condvar::new(),
        });
        let own = carries.clone();
        std::thread::spawn(move || {
            for near in listener.incoming().map_while(Result::ok) {
                // Each by itself: one that waits holds up no other.
                let own = own.clone();
                std::thread::spawn(move || {
                    own.wait();
                    let Ok(far) = TcpStream::connect(server) else {
                        return;
                    };
                    let (Ok(near_too), Ok(far_too)) = (near.try_clone(), far.try_clone()) else {
                        return;
                    };
                    let back = own.clone();
                    std::thread::spawn(move || forward(&back, far_too, near_too));
                    forward(&own, near, far);
                });
            }
        });
        Line { address, carries }
    }

    /// From now on nothing passes and nothing ends; or all does again, what was held first.
    pub fn carry(&self, carries: bool) {
        *self.carries.is_so.lock().expect("not poisoned") = carries;
        self.carries.changed.notify_all();
    }
}

fn forward(carries: &Carries, mut from: TcpStream, mut to: TcpStream) {
    let mut buffer = [0; 16 << 10];
    loop {
        let read = from.read(&mut buffer);
        carries.wait();
        match read {
            Ok(bytes @ 1..) => {
                if to.write_all(&buffer[..bytes]).is_err() {
                    break;
                }
            }
            Ok(0) | Err(_) => break,
        }
    }
    // The other direction ends too.
    let _closed = to.shutdown(std::net::Shutdown::Both);
    let _closed = from.shutdown(std::net::Shutdown::Both);
}
